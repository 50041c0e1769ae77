//! `panoptes produce` and `panoptes tail` around `panoptes run`.
