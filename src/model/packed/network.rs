//! The whole network, packed.

use candle_core::Result;
use rayon::prelude::*;

use super::super::kernels::arithmetic::{Arithmetic, Single};
use super::super::kernels::lanes::WIDEST;
use super::super::kernels::product::{Add, Packed};
use super::super::layers::DENOMINATOR_EPSILON;
use super::super::mvmcad::{Amplification, AmplificationScope, MvmcadConfig, NORM_EPSILON};
use super::amplification::Amplifier;
use super::block::{Block, BlockForm};
use super::bottleneck::{Mlp, linear};
use super::encoder::Encoder;
use super::features::{distance, target};
use super::mixing::{Attention, normalise};
use super::room::{MixingRoom, Room, Segment, TASK_ROWS, Tokens};
use super::{ImageFeatures, Run, Weights};

/// MVMCAD's packed weights. Whitening is in `f32` always: it magnifies what is small beside the mean.
#[derive(Clone, Debug)]
pub(super) struct PackedMvmcad<A: Arithmetic> {
    encoder: Encoder<A>,
    whitening: Option<[Packed<Single<A::Lanes>>; 2]>,
    bottleneck: Option<Mlp<A>>,
    amplifier: Option<Amplifier<A>>,
    decoder: Vec<Block<A>>,
    config: MvmcadConfig,
}

impl<A: Arithmetic> PackedMvmcad<A> {
    pub(super) fn new(config: &MvmcadConfig, weights: Weights<'_>) -> Result<Self> {
        let whitening = match config.whitening {
            false => None,
            true => Some([
                linear(weights, "whitening.shallow", None)?,
                linear(weights, "whitening.deep", None)?,
            ]),
        };
        let bottleneck = match config.amplification {
            Amplification::Replace => None,
            _ => Some(Mlp::new(weights, "bottleneck.", None)?),
        };
        let form = BlockForm {
            width: config.encoder.width,
            heads: config.encoder.heads,
            epsilon: NORM_EPSILON,
            attention: Attention::Linear(DENOMINATOR_EPSILON as f32),
            is_scaled: false,
        };
        let decoder = (0..config.decoder_depth)
            .map(|index| Block::new(form, weights, &format!("decoder.{index}.")))
            .collect::<Result<_>>()?;
        Ok(Self {
            encoder: Encoder::new(&config.encoder, weights)?,
            whitening,
            bottleneck,
            amplifier: Amplifier::new(config, weights)?,
            decoder,
            config: config.clone(),
        })
    }

    /// Rows in memory: whole panels of every processor.
    fn stride(&self) -> usize {
        self.config.encoder.width.next_multiple_of(2 * WIDEST)
    }

    fn encode(&self, images: &[&[f32]], segments: &[Segment], room: &mut Room) {
        let rows = images.len() * self.config.encoder.tokens();
        let stride = self.stride();
        room.tokens.clear(rows, stride);
        for mean in &mut room.encoded {
            mean.clear(rows, stride);
        }
        self.encoder.run(
            images,
            segments,
            &mut room.tokens,
            &mut room.encoded,
            &mut room.mixing,
        );
        let Some(whitening) = &self.whitening else {
            return;
        };
        for (whitening, group) in whitening.iter().zip(&mut room.encoded) {
            group
                .values
                .par_chunks_mut(TASK_ROWS * stride)
                .with_max_len(1)
                .for_each(|group| {
                    room.mixing.scratches.with(|scratch| {
                        normalise::<Single<A::Lanes>>(
                            None,
                            group,
                            stride,
                            whitening.inputs(),
                            scratch,
                        );
                        group.fill(0.0);
                        let rows = group.len() / stride;
                        whitening.multiply(&scratch.left, rows, Add { to: group, stride });
                    });
                });
        }
    }

    /// The mean of both groups through the bottleneck, to `tokens`.
    fn narrow(&self, encoded: &[Tokens; 2], tokens: &mut Tokens, room: &MixingRoom) {
        let stride = tokens.stride;
        let task = TASK_ROWS * stride;
        let [shallow, deep] = encoded;
        tokens
            .values
            .par_chunks_mut(task)
            .zip(
                shallow
                    .values
                    .par_chunks(task)
                    .zip(deep.values.par_chunks(task)),
            )
            .with_max_len(1)
            .for_each(|(to, (shallow, deep))| {
                for (to, (shallow, deep)) in to.iter_mut().zip(shallow.iter().zip(deep)) {
                    *to = (shallow + deep) * 0.5;
                }
                if let Some(bottleneck) = &self.bottleneck {
                    room.scratches.with(|scratch| {
                        normalise::<A>(None, to, stride, self.config.encoder.width, scratch);
                        to.fill(0.0);
                        bottleneck.add(scratch, to, stride);
                    });
                }
            });
    }

    fn decode(&self, segments: &[Segment], room: &mut Room) {
        let half = self.decoder.len() / 2;
        for mean in &mut room.decoded {
            mean.clear(
                room.tokens.values.len() / room.tokens.stride,
                room.tokens.stride,
            );
        }
        for (index, block) in self.decoder.iter().enumerate() {
            let [first, second] = &mut room.decoded;
            let sum = if index < half { first } else { second };
            let sum = Some((sum, 1.0 / half as f32));
            block.run(&mut room.tokens, segments, &mut room.mixing, sum);
        }
    }

    /// Compares an image's groups: shallow with the deep half of the decoder, and the reverse.
    fn compare(&self, image: usize, room: &Room) -> ImageFeatures {
        let encoder = &self.config.encoder;
        let stride = self.stride();
        let (width, leading) = (encoder.width, encoder.leading_tokens());
        let of_image = |tokens: &Tokens| -> std::ops::Range<usize> {
            let size = encoder.tokens() * tokens.stride;
            image * size..(image + 1) * size
        };
        let [shallow, deep] = [0, 1].map(|group| {
            let tokens = &room.encoded[group];
            target(
                &tokens.values[of_image(tokens)],
                stride,
                width,
                leading,
                self.config.target,
            )
        });
        let rebuilt = [1, 0].map(|half| {
            let tokens = &room.decoded[half];
            &tokens.values[of_image(tokens)][leading * stride..]
        });
        let mut anomalies = vec![0f32; shallow.len() / width];
        for (targets, rebuilt) in [&shallow, &deep].into_iter().zip(rebuilt) {
            let pairs = targets
                .chunks_exact(width)
                .zip(rebuilt.chunks_exact(stride));
            for (anomaly, (target, rebuilt)) in anomalies.iter_mut().zip(pairs) {
                *anomaly += 0.5 * distance(target, &rebuilt[..width]);
            }
        }
        ImageFeatures { anomalies, shallow }
    }
}

impl<A: Arithmetic> Run for PackedMvmcad<A> {
    fn encode(&self, images: &[&[f32]], room: &mut Room) {
        let segments = segments(&vec![1; images.len()], self.config.encoder.tokens());
        PackedMvmcad::encode(self, images, &segments, room);
    }

    fn run(&self, images: &[&[f32]], views: &[usize], room: &mut Room) -> Vec<ImageFeatures> {
        let tokens = self.config.encoder.tokens();
        let segments = segments(&vec![1; images.len()], tokens);
        self.encode(images, &segments, room);
        self.narrow(&room.encoded, &mut room.tokens, &room.mixing);
        if let Some(amplifier) = &self.amplifier {
            let parts = match self.config.amplification_scope {
                AmplificationScope::View => segments.clone(),
                AmplificationScope::Part => self::segments(views, tokens),
            };
            amplifier.run(
                &mut room.tokens,
                &parts,
                &mut room.mixing,
                &mut room.features,
            );
        }
        self.decode(&segments, room);
        (0..images.len())
            .into_par_iter()
            .map(|image| self.compare(image, room))
            .collect()
    }
}

/// Segments of so many images each.
fn segments(images: &[usize], tokens: usize) -> Vec<Segment> {
    let mut segments = Vec::with_capacity(images.len());
    let mut first = 0;
    for images in images.iter().filter(|images| **images > 0) {
        segments.push(Segment {
            first,
            tokens: images * tokens,
        });
        first += images * tokens;
    }
    segments
}
