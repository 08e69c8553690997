"""Parts of `bench_sched`: arrivals, the load client, the barrier batch, figures of records."""
