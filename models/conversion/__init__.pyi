from .exporting import ExportReport as ExportReport  # public
from .exporting import export_checkpoint as export_checkpoint  # public
from .importing import ImportReport as ImportReport  # public
from .importing import import_checkpoint as import_checkpoint  # public
from .loading import load_checkpoint as load_checkpoint  # public
from .record import ImportRecord as ImportRecord
