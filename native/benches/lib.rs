//! Nothing: the benchmarks beside it are the package.
