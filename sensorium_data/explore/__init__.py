"""The xarray accessor ``.sensorium`` of opened sessions. Importing this package registers it."""

from sensorium_data.explore.accessor import SensoriumAccessor

__all__ = ["SensoriumAccessor"]
