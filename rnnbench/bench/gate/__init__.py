"""Did this change make a kernel slower? Two revisions, compared in pairs; `rnnbench gate`.

Each side (base, head) is a folder with its own build, run by one worker process; both workers share one processor core and
wait for each other. A pair is base, head, head, base (or the reverse), each a few milliseconds: what slows the machine for a
while slows both, and an even drift cancels. Then the workers are restarted, because where a process happens to lie in memory alone
changes times by some per cent (Kalibera and Jones, Rigorous benchmarking in reasonable time, 2013; Mytkowicz et al., Producing
wrong data without doing anything obviously wrong, 2009).

    verdict    numbers to verdicts: the only statistics here, without a clock
    project    what pyproject.toml says, and how a case is written
    sides      from a revision to a folder that a worker can run
    worker     the process of one side;  `workers` its other end
    pairs      restarts and pairs of one batch
    run        the whole gate;  `outcome` what it found;  `output` how that is written
"""
