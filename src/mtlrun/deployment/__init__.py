"""Trained runs put to use: ensembles of runs that are finished, and models that are merged of theirs.

What belongs here needs the folders of finished runs. Contract: what is made from runs leaves a record that says so
(`made_from`), in a folder named after the method and the runs, and never touches these runs.
"""
