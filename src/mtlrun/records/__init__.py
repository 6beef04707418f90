"""Records: what runs leave behind, and comparisons of many of them.

Here: the record, the identity of a run, its folder with the file names and the lock, comparison, and the tables that
show them. Not here: writing checkpoints and curves (`training`). Nothing imports torch, so that any machine can compare
copied run folders.

Contract: a run is its config. Its folder's name carries a hash of the resolved config without `runtime`, whose keys
cannot change a result. Records are written atomically and have a schema version; older ones are converted on reading.
`compare` reads records and nothing else.
"""
