from .batches import WindowBatches as WindowBatches  # public
from .batches import window_batches as window_batches  # public
from .block_cache import BlockCache as BlockCache
from .block_cache import default_cache_bytes as default_cache_bytes
from .gaps import NAN_POLICIES as NAN_POLICIES
from .gaps import NanPolicy as NanPolicy  # public
from .loader import Batch as Batch  # public
from .loader import WindowLoader as WindowLoader  # public
from .plans import BatchPart as BatchPart  # public
from .plans import EpochPlan as EpochPlan  # public
from .plans import SessionTrials as SessionTrials
from .plans import WindowPosition as WindowPosition  # public
from .plans import Windows as Windows  # public
from .plans import plan_in_turn as plan_in_turn  # public
from .plans import plan_mixed as plan_mixed  # public
from .recording import RecordedTrial as RecordedTrial  # public
from .subsets import choose_neurons as choose_neurons
from .subsets import choose_trials as choose_trials
from .subsets import normalize_neurons as normalize_neurons
from .trial_reader import TrialReader as TrialReader  # public
