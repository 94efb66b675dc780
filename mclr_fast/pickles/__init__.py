"""Pickles of other programs, read as data: nothing in them is imported, called or executed.

`reading.read` is for everybody; the others run in a process of their own, which imports the
standard library alone. So this file imports nothing.
"""
