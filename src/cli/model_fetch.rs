//! `panoptes model fetch`: a published encoder from the Hugging Face Hub, checked before use.
//!
//! The hub's cache, endpoint, token and proxy are those of its other clients: `HF_HOME`,
//! `HF_ENDPOINT`, `HF_TOKEN` (else the file `token` in `HF_HOME`) and `HTTPS_PROXY`. Without a
//! connection it says how to place the file by hand.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Repo, RepoType};

use crate::model::bundle::sha256;
use crate::model::vit::VitConfig;
use crate::training::encoder_file::{EncoderChanges, read_encoder};
use crate::whole_file;

/// The file of a repository that is fetched.
const FILE: &str = "model.safetensors";
/// Register tokens of these encoders, and the side of their patches.
const REGISTERS: usize = 4;
const PATCH: usize = 14;

/// Fetches a DINOv2 encoder with registers for `panoptes train --encoder`.
#[derive(Args, Clone, Debug)]
pub struct FetchArguments {
    /// Which of the three encoders: 22, 87 or 304 million parameters.
    #[arg(value_enum)]
    pub size: EncoderSize,
    /// Folder to copy the file to; without it, it stays in the hub's cache (`HF_HOME`).
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Branch, tag or commit of the repository.
    #[arg(long, default_value = "main")]
    pub revision: String,
}

/// The published encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EncoderSize {
    /// ViT-S/14: width 384, 12 blocks.
    Small,
    /// ViT-B/14: width 768, 12 blocks.
    Base,
    /// ViT-L/14: width 1024, 24 blocks.
    Large,
}

impl EncoderSize {
    fn repository(self) -> &'static str {
        match self {
            Self::Small => "facebook/dinov2-with-registers-small",
            Self::Base => "facebook/dinov2-with-registers-base",
            Self::Large => "facebook/dinov2-with-registers-large",
        }
    }

    fn width_and_depth(self) -> (usize, usize) {
        match self {
            Self::Small => (384, 12),
            Self::Base => (768, 12),
            Self::Large => (1024, 24),
        }
    }

    /// What the file is called outside of its repository.
    fn file_name(self) -> String {
        let (_, name) = self
            .repository()
            .split_once('/')
            .expect("a repository's name has its owner before the slash");
        format!("{name}.safetensors")
    }
}

/// Fetches the encoder, checks that it is what it should be, and prints where it is.
///
/// # Errors
/// When the hub cannot be reached, the file is no such encoder, or it cannot be copied.
pub fn fetch(arguments: &FetchArguments) -> anyhow::Result<()> {
    let cached = download(arguments)?;
    let config = check(&cached, arguments.size)?;
    let bytes = fs::read(&cached).with_context(|| format!("cannot read `{}`", cached.display()))?;
    let path = match &arguments.output {
        None => cached,
        Some(folder) => save(&bytes, folder, &arguments.size.file_name())?,
    };
    let hash = sha256(&bytes);
    let VitConfig {
        patch,
        width,
        depth,
        heads,
        registers,
        ..
    } = config;
    println!("file     {}", path.display());
    println!("sha256   {hash}");
    println!(
        "encoder  patch {patch}, width {width}, {depth} blocks, {heads} heads, {registers} registers"
    );
    println!("next     panoptes train --encoder {} ...", path.display());
    Ok(())
}

fn download(arguments: &FetchArguments) -> anyhow::Result<PathBuf> {
    let FetchArguments { size, revision, .. } = arguments;
    let repository = Repo::with_revision(
        size.repository().to_owned(),
        RepoType::Model,
        revision.clone(),
    );
    let mut client = ApiBuilder::from_env();
    // The crate itself reads the token's file alone.
    if let Some(token) = env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
        client = client.with_token(Some(token));
    }
    let hub = client
        .build()
        .context("cannot set up the hub's client")?
        .repo(repository);
    let fetched = hub.get(FILE);
    // The client's error says its cause itself.
    fetched.map_err(|error| {
        anyhow!(
            "cannot fetch `{url}`: {error}; without a connection get that file on another machine, \
             place it here under any name, such as `{name}`, and train with \
             `panoptes train --encoder {name}`",
            url = hub.url(FILE),
            name = size.file_name(),
        )
    })
}

/// Holds the file against what its name promises.
fn check(path: &Path, size: EncoderSize) -> anyhow::Result<VitConfig> {
    let config = read_encoder(path, &EncoderChanges::default())
        .context("what was fetched is no encoder")?
        .config;
    let (width, depth) = size.width_and_depth();
    let expected = (PATCH, width, depth, REGISTERS);
    let found = (config.patch, config.width, config.depth, config.registers);
    if found != expected {
        bail!(
            "`{}`: expected patch, width, blocks and registers `{expected:?}`, found `{found:?}`",
            path.display()
        );
    }
    Ok(config)
}

fn save(bytes: &[u8], folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| whole_file::replace(&path, bytes))
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}
