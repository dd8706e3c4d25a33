"""Rule jobs on a cluster: what is added to the executor plugin that submits them, and to their nodes.

    head                                            node
    driver ── plugin's executor + ours ── cluster ── Snakemake ── our local executor ── rule job
                     └───── records of attempts, in the job's directory ─────┘

The plugin submits, asks and cancels as ever. `executor.mirrored` adds the plan, the cluster's id of each
rule job, true times, exit code and usage as the node records them, and an end that leaves nothing behind.
"""
