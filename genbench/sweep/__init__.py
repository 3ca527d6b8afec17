"""Sweeps: models x tracks x seeds x hyper-parameters from one file, run to the last record whatever happens in between.

`plan` decides which runs there are, `night` does the same with them for every executor, `local` and `ray` say where they run. All that is
known of a sweep is in its file and in the records: the same command again goes on, on this machine or on another that shares the results.
"""
