"""Many runs: a sweep composed and checked as a whole, then trained, each run in a process of its own.

What belongs here: the launcher that Hydra calls, the queue of runs, the places to run them, and what the screen shows
of them. What does not: anything about a single run, which is in `mtlrun.runs` and knows nothing of sweeps. Nothing here
imports torch but the fork server, which is a process of its own.
"""
