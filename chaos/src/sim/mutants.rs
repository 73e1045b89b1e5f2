//! `chaos mutants`: breaks one rule at a time and demands that a run finds it.
