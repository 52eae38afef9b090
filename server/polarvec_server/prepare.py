"""Makes models ready for Triton: finds or builds their folders, checks them, writes the model repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from polarvec_server.config import GPU_ENGINES, Settings
from polarvec_server.deployment import DeployedModel
from polarvec_server.errors import ConfigError
from polarvec_server.models import pull, repository
from polarvec_server.models.folder import ModelFolder, fingerprint, read_folder
from polarvec_server.models.repository import EncoderConfig, Inspection

# A pack waits in the gateway, not here, so these only bound what goes wrong: see docs/decisions/.
# A GPU computes a full batch in some 18 ms and an almost empty one in 1: half a millisecond to gather pays.
_GPU_QUEUE_DELAY_US = 500


def prepare_models(
    settings: Settings, root: Path, say: Callable[[str], None], threads: int, *, elsewhere: bool = False
) -> list[DeployedModel]:
    """Writes a Triton model repository for all models of the settings.

    Args:
        settings: The models, the engine, the precision, the cache directory.
        root: Where the repository goes; made if missing.
        say: Told what takes long.
        threads: Threads of a CPU engine; 0 means as many as the encoder may use where it runs.
        elsewhere: Another machine will run it, so what this one can compute does not matter.

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
        # The engine null's vectors are a space of their own, in golden file and fingerprint.
        null = settings.engine == "null"
        golden_path = cache / "golden" / f"{fingerprint(folder, 'null' if null else 'f32', cache)}.json"
        if not golden_path.exists():
            say(f"computing the golden vectors of {folder.id}")
        inspection = repository.inspect(
            folder,
            settings.engine,
            settings.precision,
            source,
            golden_path,
            threads,
            gelu=settings.gelu,
            elsewhere=elsewhere,
        )
        hashed = fingerprint(folder, "null" if null else inspection.precision, cache)
        instance_count = _instance_count(settings, inspection, elsewhere)
        configs.append(_encoder_config(settings, folder, inspection, f"encoder_{index}", hashed, golden_path, threads))
        deployed.append(
            DeployedModel(
                str(folder.path.resolve()),
                configs[-1].triton_name,
                inspection.engine,
                inspection.precision,
                hashed,
                str(golden_path.resolve()),
                instance_count,
            )
        )
        say(f"{folder.id}: {inspection.why}")
    if not configs:
        raise ConfigError("POLARVEC_MODEL names no model.")
    repository.write_repository(root, configs, source)
    return deployed


def _encoder_config(
    settings: Settings,
    folder: ModelFolder,
    inspection: Inspection,
    triton_name: str,
    hashed: str,
    golden_path: Path,
    threads: int,
) -> EncoderConfig:
    gpu = inspection.engine in GPU_ENGINES
    return EncoderConfig(
        triton_name=triton_name,
        folder=folder,
        engine=inspection.engine,
        precision=inspection.precision,
        fingerprint=hashed,
        golden_path=golden_path,
        gelu=inspection.gelu,
        threads=threads,
        streams=settings.engine_streams,
        # The GPU engine takes the weights as they are.
        cache_dir=None if gpu else settings.engine_cache(hashed),
        gpus=settings.gpu_numbers,
        # Packs of one query each fill about a millisecond of a GPU by then; the gateway's window bounds the tokens.
        max_batch_packs=64,
        queue_delay_us=_GPU_QUEUE_DELAY_US if gpu else 0,
    )


def _instance_count(settings: Settings, inspection: Inspection, elsewhere: bool) -> int:
    """Returns how many instances Triton will run. Raises ConfigError if a GPU is named that is not here."""
    if inspection.engine not in GPU_ENGINES:
        return 1
    named = settings.gpu_numbers
    if named and not elsewhere and named[-1] >= inspection.gpu_count:
        raise ConfigError(
            f"POLARVEC_GPUS names GPU {named[-1]}, but this process may use {inspection.gpu_count}, counted from 0."
        )
    return len(named) or max(1, inspection.gpu_count)
