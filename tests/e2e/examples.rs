//! The examples, applied as their READMEs say, while things are killed under them.
