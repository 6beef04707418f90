"""The search: runs that are chosen one after the other, by the results of those before, with Optuna.

What belongs here: what is searched (`space.py`), what is compared (`objectives.py`), and the trials, kept in the
study's folder (`trials.py`). The sweeper that Hydra calls is in `sweeper.py`, which alone works without Optuna
installed. How runs are trained is the business of the launcher and the scheduler.
"""
