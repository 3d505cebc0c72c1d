"""What tests of this project, and of stores and archives made with it, are built from.

:mod:`~sensorium_data.testing.server` serves a folder over HTTP, with byte ranges, and
:mod:`~sensorium_data.testing.faults` makes that server misbehave. Nothing here is imported by the rest of the package.
"""
