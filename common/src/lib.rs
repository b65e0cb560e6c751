//! What every program of the lab needs and no lecture is about.
