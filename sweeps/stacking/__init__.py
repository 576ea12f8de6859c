"""`--stack K`: trials that one process trains in lockstep, while Tune sees each of them as a trial of its own."""
