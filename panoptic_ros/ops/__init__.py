"""Operations on the device, one file each; nothing here knows a network."""
