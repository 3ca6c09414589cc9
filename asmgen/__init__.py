"""300W-LP annotations -> identity and expression UV attribute spatial maps -> sharded HDF5 (ASMD)."""
