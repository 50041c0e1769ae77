//! Colour images as training works on them: planes of values from 0 to 1.

use crate::model::preprocess::Normalisation;

/// A square colour image, channel first, values from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Canvas {
    /// Side in pixels.
    pub side: usize,
    /// `3 * side * side` values.
    pub values: Vec<f32>,
}

impl Canvas {
    /// A canvas of one colour.
    pub fn filled(side: usize, colour: [f32; 3]) -> Self {
        let values = colour
            .iter()
            .flat_map(|&value| std::iter::repeat_n(value, side * side))
            .collect();
        Self { side, values }
    }

    /// Pixels of one channel.
    pub fn area(&self) -> usize {
        self.side * self.side
    }

    /// The colour at a pixel index.
    pub fn colour(&self, pixel: usize) -> [f32; 3] {
        let area = self.area();
        [0, 1, 2].map(|channel| self.values[channel * area + pixel])
    }

    /// Mixes `colour` over a pixel; a `share` of 1 replaces it.
    pub fn blend(&mut self, pixel: usize, colour: [f32; 3], share: f32) {
        let area = self.area();
        for (channel, value) in colour.into_iter().enumerate() {
            let target = &mut self.values[channel * area + pixel];
            *target += (value - *target) * share;
        }
    }

    /// The canvas of an image as the encoder sees it ([`Normalisation::imagenet`]).
    pub fn from_normalised(values: &[f32], side: usize) -> Self {
        let Normalisation {
            mean, deviation, ..
        } = Normalisation::imagenet(side);
        let values = values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let channel = index / (side * side);
                value * deviation[channel] + mean[channel]
            })
            .collect();
        Self { side, values }
    }

    /// The image as the encoder sees it, channel first.
    pub fn normalised(&self) -> Vec<f32> {
        let Normalisation {
            mean, deviation, ..
        } = Normalisation::imagenet(self.side);
        let area = self.area();
        self.values
            .iter()
            .enumerate()
            .map(|(index, value)| (value - mean[index / area]) / deviation[index / area])
            .collect()
    }

    /// The colour between pixels, by bilinear interpolation; the border repeats outwards.
    pub fn sample(&self, x: f32, y: f32) -> [f32; 3] {
        let last = (self.side - 1) as f32;
        let (x, y) = (x.clamp(0.0, last), y.clamp(0.0, last));
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.side - 1), (top + 1).min(self.side - 1));
        let (fx, fy) = (x - left as f32, y - top as f32);
        let area = self.area();
        [0, 1, 2].map(|channel| {
            let plane = &self.values[channel * area..(channel + 1) * area];
            let upper =
                plane[top * self.side + left] * (1.0 - fx) + plane[top * self.side + right] * fx;
            let lower = plane[bottom * self.side + left] * (1.0 - fx)
                + plane[bottom * self.side + right] * fx;
            upper * (1.0 - fy) + lower * fy
        })
    }

    /// A copy blurred by three box passes, close to a Gaussian.
    pub fn blurred(&self, radius: usize) -> Self {
        let mut out = self.clone();
        let area = self.area();
        for plane in out.values.chunks_exact_mut(area) {
            for _ in 0..3 {
                for row in plane.chunks_exact_mut(self.side) {
                    box_blur(row, radius);
                }
                let mut column = vec![0.0; self.side];
                for x in 0..self.side {
                    for y in 0..self.side {
                        column[y] = plane[y * self.side + x];
                    }
                    box_blur(&mut column, radius);
                    for y in 0..self.side {
                        plane[y * self.side + x] = column[y];
                    }
                }
            }
        }
        out
    }

    pub(super) fn clamp(&mut self) {
        for value in &mut self.values {
            *value = value.clamp(0.0, 1.0);
        }
    }
}

fn box_blur(line: &mut [f32], radius: usize) {
    let source = line.to_vec();
    let last = source.len() - 1;
    let at = |i: isize| source[i.clamp(0, last as isize) as usize];
    let reach = radius as isize;
    let mut sum: f32 = (-reach..=reach).map(at).sum();
    let scale = 1.0 / (2 * radius + 1) as f32;
    for (i, value) in line.iter_mut().enumerate() {
        *value = sum * scale;
        sum += at(i as isize + reach + 1) - at(i as isize - reach);
    }
}
