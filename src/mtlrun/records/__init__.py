"""Records: what runs leave behind.

Here: the record, the identity of a run, its folder with the file names and the lock, and the tables that show them. Not
here: comparing many (`comparison`), and writing checkpoints and curves (`training`). Nothing imports torch, so that any
machine can compare copied run folders.

Contract: a run is its config. Its folder's name carries a hash of the resolved config without `runtime`, whose keys
cannot change a result. Records are written atomically and have a schema version; older ones are converted on reading.
"""
