//! Configuration files for `panoptes run`, written as a person would write them: as TOML.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::OnceLock;

use panoptes::model::bundle::{Bundle, Precision};
use toml::{Table, Value};

use crate::kafka::{free_port, repository};

/// The model bundle that the tests score with: the shipped one, or that of `PANOPTES_TEST_MODEL`.
pub(crate) fn model_path() -> PathBuf {
    std::env::var_os("PANOPTES_TEST_MODEL")
        .map_or_else(|| repository().join("models/demo"), PathBuf::from)
}

/// The same network over images of a few patches, for tests of what happens around it: it costs
/// next to nothing, and its scores say nothing.
pub(crate) fn quick_model_path() -> PathBuf {
    const SIDE: usize = 48;
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        let path = repository().join("target/test-model");
        let Bundle {
            mut manifest,
            mut tensors,
        } = Bundle::load(&model_path()).unwrap();
        manifest.architecture.encoder.input_side = SIDE;
        manifest.normalisation.resize = SIDE;
        manifest.map_side = SIDE;
        // A memory belongs to places of the larger image.
        let weights = manifest.architecture.tensors();
        let names: HashSet<&str> = weights.iter().map(|(name, _)| name).collect();
        tensors.retain(|name, _| names.contains(name.as_str()));
        Bundle::save(&path, &manifest, &tensors, Precision::Half).unwrap();
        path
    });
    path.clone()
}

/// The classes that the model bundle knows.
pub(crate) fn model_classes() -> Vec<String> {
    let bundle = model_path().join("model.toml");
    let text = std::fs::read_to_string(&bundle).unwrap();
    let table: Table = text.parse().unwrap();
    table["classes"]
        .as_table()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

/// Settings that grow by dotted path.
#[derive(Clone, Default)]
pub(crate) struct Config(Table);

impl Config {
    /// Sets `path`, such as `reassembly.timeout`, to `value`.
    pub(crate) fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let (sections, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut self.0;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            table = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .unwrap();
        }
        table.insert(key.to_owned(), value.into());
        self
    }

    /// The settings of one more instance on this machine.
    pub(crate) fn of_another_instance(&self) -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        self.clone().set("admin.listen", listen)
    }

    /// Sets one of `bus.properties`, whose names have dots of their own.
    pub(crate) fn property(mut self, name: &str, value: &str) -> Self {
        let bus = self
            .0
            .entry("bus")
            .or_insert_with(|| Value::Table(Table::new()));
        let properties = bus
            .as_table_mut()
            .unwrap()
            .entry("properties")
            .or_insert_with(|| Value::Table(Table::new()));
        properties
            .as_table_mut()
            .unwrap()
            .insert(name.to_owned(), value.into());
        self
    }

    /// Takes `path` out.
    pub(crate) fn without(mut self, path: &str) -> Self {
        let (section, key) = path.rsplit_once('.').unwrap();
        self.0[section].as_table_mut().unwrap().remove(key);
        self
    }

    /// The text at `path`.
    pub(crate) fn text(&self, path: &str) -> String {
        let (section, key) = path.rsplit_once('.').unwrap();
        self.0[section][key].as_str().unwrap().to_owned()
    }

    /// The text of the file.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(&self.0).unwrap()
    }
}
