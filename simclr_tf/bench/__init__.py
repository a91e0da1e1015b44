"""Benchmarks: what the method costs on this machine.

A bench is a module with `Options`, a section of flags, and `run(options, say)`, which returns a
`Report`; the command lists it by name.
"""
