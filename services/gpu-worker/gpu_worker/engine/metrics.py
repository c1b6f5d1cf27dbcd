"""What the engine counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

STEPS = Counter("easel_worker_steps", "Denoising steps that jobs took.")
STEP_SECONDS = Histogram(
    "easel_worker_step_seconds",
    "Duration of one forward with its scheduler steps, in seconds.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
ROWS = Histogram("easel_worker_step_rows", "Rows of one forward.", buckets=(1, 2, 4, 8, 16, 32, 64))
PICTURES = Histogram(
    "easel_worker_step_pictures", "Pictures in one forward.", buckets=(1, 2, 4, 8, 16, 32)
)
BUSY_SECONDS = Counter("easel_worker_busy_seconds", "Seconds that the engine's thread worked.")
IDLE_SECONDS = Counter("easel_worker_idle_seconds", "Seconds that it had nothing to do.")
FIRST_STEP_SECONDS = Histogram(
    "easel_worker_engine_first_step_seconds",
    "From a job's arrival at the engine to the end of its first step, in seconds.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
CACHE_BYTES = Gauge("easel_worker_model_cache_bytes", "Bytes of all model weights in memory.")
EVICTIONS = Counter("easel_worker_model_evictions", "Models that made room for others.")
EMBEDDING_BYTES = Gauge("easel_worker_embedding_cache_bytes", "Bytes of all kept prompts.")
MEMORY_BYTES = Gauge("easel_worker_memory_bytes", "Memory in use: of the device, or the process.")
OUT_OF_MEMORY = Counter("easel_worker_out_of_memory", "Forwards and decodes that did not fit.")
ENGINE_JOBS = Gauge("easel_worker_engine_jobs", "Jobs in the engine.", ["state"])
