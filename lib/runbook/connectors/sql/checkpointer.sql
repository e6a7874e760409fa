-- Checkpoints from version 17 on.
SELECT num_timed AS timed, num_requested AS requested, clock_timestamp() AS at FROM pg_stat_checkpointer
