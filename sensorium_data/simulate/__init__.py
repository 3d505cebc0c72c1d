"""Simulated recordings: archives in GIN's layout, with every quirk, and a known truth behind them."""

from sensorium_data.simulate.simulation import SimulatedSession, SimulationReport, simulate
from sensorium_data.simulate.truth import open_truth

__all__ = ["SimulatedSession", "SimulationReport", "open_truth", "simulate"]
