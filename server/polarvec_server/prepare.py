"""Makes models ready for Triton: finds or builds their folders, checks them, writes the model repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from polarvec_server.config import GPU_ENGINES, Settings
from polarvec_server.deployment import DeployedModel
from polarvec_server.errors import ConfigError
from polarvec_server.models import pull, repository
from polarvec_server.models.folder import fingerprint, read_folder
from polarvec_server.models.repository import EncoderConfig

# A pack waits in the gateway, not here, so these only bound what goes wrong: see docs/decisions/.
_MAX_QUEUE_PACKS = 4096
_LONGEST_DEADLINE_US = 3_600_000_000


def prepare_models(settings: Settings, root: Path, say: Callable[[str], None]) -> list[DeployedModel]:
    """Writes a Triton model repository for all models of the settings.

    Args:
        settings: The models, the engine, the precision, the cache directory.
        root: Where the repository goes; made if missing.
        say: Told what takes long.

    Raises:
        PolarvecServerError: A model cannot be had or served; the message says why.
    """
    source = repository.encoder_source()
    cache = settings.cache_dir.expanduser()
    configs: list[EncoderConfig] = []
    deployed: list[DeployedModel] = []
    for index, name in enumerate(settings.model_names):
        folder = read_folder(pull.obtain(name, settings.models_dir, settings.hub_endpoint or None, say))
        if any(config.folder.id == folder.id for config in configs):
            raise ConfigError(f"POLARVEC_MODEL names {folder.id} twice.")
        golden_path = cache / "golden" / f"{fingerprint(folder, 'f32', cache)}.json"
        if not golden_path.exists():
            say(f"computing the golden vectors of {folder.id}")
        inspection = repository.inspect(
            folder, settings.engine, settings.precision, source, golden_path, settings.engine_threads
        )
        triton_name = f"encoder_{index}"
        hashed = fingerprint(folder, inspection.precision, cache)
        gpu = inspection.engine in GPU_ENGINES
        configs.append(
            EncoderConfig(
                triton_name=triton_name,
                folder=folder,
                engine=inspection.engine,
                precision=inspection.precision,
                fingerprint=hashed,
                golden_path=golden_path,
                threads=settings.engine_threads,
                max_batch_packs=64,
                queue_delay_us=500 if gpu else 0,
                max_queue_size=_MAX_QUEUE_PACKS,
                default_timeout_us=_LONGEST_DEADLINE_US,
            )
        )
        deployed.append(
            DeployedModel(
                str(folder.path.resolve()),
                triton_name,
                inspection.engine,
                inspection.precision,
                hashed,
                str(golden_path.resolve()),
            )
        )
        say(f"{folder.id}: {inspection.why}")
    if not configs:
        raise ConfigError("POLARVEC_MODEL names no model.")
    repository.write_repository(root, configs, source)
    return deployed
