from .array_pool import ArrayPool as ArrayPool
from .block_decoder import BlockDecoder as BlockDecoder
from .block_encoder import BlockEncoder as BlockEncoder
from .checked_store import CheckedStore as CheckedStore
from .cleaning import find_partial_leftovers as find_partial_leftovers
from .cleaning import find_store_leftovers as find_store_leftovers
from .datasets import find_absent as find_absent
from .describe import describe_session as describe_session
from .describe import describe_store as describe_store
from .describe import expand_tiers as expand_tiers
from .describe import format_range as format_range
from .describe import list_tiers as list_tiers
from .describe import parse_tiers as parse_tiers
from .exclusions import Exclusions as Exclusions  # public
from .exclusions import format_exclusions as format_exclusions
from .exclusions import list_trials as list_trials
from .exclusions import parse_exclusions as parse_exclusions
from .exclusions import read_exclusions as read_exclusions
from .exclusions import require_trials as require_trials
from .forks import survive_forks as survive_forks
from .groups import damaged_object as damaged_object
from .groups import ingest_command as ingest_command
from .groups import is_group_key as is_group_key
from .groups import read_attributes as read_attributes
from .groups import read_ledger as read_ledger
from .groups import read_sound_attributes as read_sound_attributes
from .groups import recall_attributes as recall_attributes
from .groups import repair_command as repair_command
from .groups import require_schema as require_schema
from .ledger import LEDGER_KEY as LEDGER_KEY
from .ledger import Ledger as Ledger
from .ledger import Members as Members
from .ledger import ObjectLedger as ObjectLedger
from .ledger import StatisticsRecord as StatisticsRecord
from .ledger import TrialFacts as TrialFacts
from .ledger import TrialRecord as TrialRecord
from .ledger import merge_objects as merge_objects
from .movie_ids import LINKS_KEY as LINKS_KEY
from .movie_ids import MovieLinks as MovieLinks
from .movie_ids import SessionLinks as SessionLinks
from .movie_ids import digest_movies as digest_movies
from .movie_ids import read_movie_groups as read_movie_groups
from .movie_ids import read_movies_digest as read_movies_digest
from .movie_screens import MovieScreen as MovieScreen
from .movie_screens import keep_screens_of as keep_screens_of
from .movie_screens import locate_screen as locate_screen
from .open import open_session as open_session  # public
from .open import open_sessions as open_sessions  # public
from .open import open_statistics as open_statistics  # public
from .open import open_store as open_store  # public
from .open import recover_versions as recover_versions
from .open import stored_sessions as stored_sessions  # public
from .portable import make_portable as make_portable
from .portable import read_list as read_list
from .precision import Precision as Precision  # public
from .precision import cast_values as cast_values
from .publishing import PARTIAL_FOLDER as PARTIAL_FOLDER
from .publishing import ROOT_LOCK as ROOT_LOCK
from .publishing import access_named as access_named
from .publishing import exclusive_access as exclusive_access
from .publishing import is_locked as is_locked
from .publishing import list_ledgered as list_ledgered
from .publishing import list_published as list_published
from .publishing import lock_key as lock_key
from .publishing import publish_root as publish_root
from .session_locks import hold_session as hold_session
from .session_tree import SessionTree as SessionTree  # public
from .store import SOURCE_KEY as SOURCE_KEY
from .store import Store as Store  # public
from .store import StoreLike as StoreLike  # public
from .template import METADATA_KEY as METADATA_KEY
from .template import SessionTemplate as SessionTemplate
from .template import consolidate as consolidate
from .unfinished import IDENTITY_KEY as IDENTITY_KEY
from .unfinished import SESSION_GROUP as SESSION_GROUP
from .unfinished import STATISTICS_KEY as STATISTICS_KEY
from .unfinished import UNFINISHED_GROUP as UNFINISHED_GROUP
from .unfinished import UNFINISHED_SESSION as UNFINISHED_SESSION
from .verification import VerificationReport as VerificationReport  # public
from .verification import find_object_problems as find_object_problems
from .verification import verify_objects as verify_objects
from .verification import verify_old_version as verify_old_version
from .verification import verify_root as verify_root
from .versions import current_group as current_group
from .versions import find_old_groups as find_old_groups
from .versions import next_group as next_group
from .versions import repair_versions as repair_versions
