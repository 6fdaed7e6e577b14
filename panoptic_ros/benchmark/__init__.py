"""What a frame costs, stage by stage: measured, put in tables and pictures, held to targets."""
