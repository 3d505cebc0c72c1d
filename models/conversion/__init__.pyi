from .exporting import ExportReport as ExportReport
from .exporting import export_checkpoint as export_checkpoint
from .importing import ImportReport as ImportReport
from .importing import import_checkpoint as import_checkpoint
from .loading import load_checkpoint as load_checkpoint
from .record import ImportRecord as ImportRecord
