"""What runs leave behind, and what is made of many of them.

Here: the record, the identity of a run, its folder with the lock, comparison, and the tables that show them. Not here:
writing checkpoints and curves (`training`). Nothing imports torch, so that a table can be made on any machine from
copied folders.

Contract: a run is its config. Its folder's name carries a hash of the resolved config without `runtime`, whose keys
cannot change a result. Records are written atomically; `compare` reads records and nothing else.
"""
