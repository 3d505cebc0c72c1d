"""The factorized 3D convolutional baseline of SENSORIUM 2023."""
