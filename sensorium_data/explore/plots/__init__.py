"""The pictures of the ``.sensorium`` accessor: a module for each. They return what they drew, and show nothing."""
