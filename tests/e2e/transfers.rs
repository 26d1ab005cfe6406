//! Whole trees there and back.
