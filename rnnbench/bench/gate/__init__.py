"""Did this change make a kernel slower? Two revisions, compared in pairs; `rnnbench gate`.

Each side (base, head) is a folder with its own build, run by one worker process; both workers share one processor core, or as many
as the case has threads, and take turns. A pair is base, head, head, base (or the reverse), each a few milliseconds: what slows the
machine for a while slows both, and a linear drift cancels. Then the workers are restarted, because a process's memory layout alone
changes times by a few per cent (Kalibera and Jones, Rigorous benchmarking in reasonable time, 2013; Mytkowicz et al., Producing
wrong data without doing anything obviously wrong, 2009).

    verdict    from numbers to verdicts: the only statistics here, without a clock
    case       the cases, with their threads
    project    the settings in pyproject.toml, and the notation for cases
    sides      from a revision to a folder that a worker can run
    worker     the process of one side;  `workers` the gate's end of it
    pairs      restarts and pairs of one batch
    run        the whole gate;  `outcome` its findings;  `output` their Markdown
"""
