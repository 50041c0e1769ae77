//! `panoptes demo`: one command, no set-up.
