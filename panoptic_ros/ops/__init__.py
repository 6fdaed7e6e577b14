"""Operations on the device, one file each; nothing here knows a network.

Where a CPU has a faster way, a file has the plain form first: fixed shapes, no wait for the
device. It defines what is computed and serves any device. The CPU's form may look at values on the
way, since there they cost nothing to know. Only here is asked where a tensor is.
"""
