//! Pooling of images.

use rayon::prelude::*;

/// Where the squares of an image lie: what does not fill one is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Squares {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Of a side; at least 1.
    pub(crate) size: usize,
}

impl Squares {
    /// How many there are down and across.
    pub(crate) fn counts(self) -> (usize, usize) {
        (self.height / self.size, self.width / self.size)
    }

    /// The place of the largest element of each square; of equal ones the first.
    fn largest(self, image: &[f32]) -> impl Iterator<Item = usize> {
        let Self { width, size, .. } = self;
        let (down, across) = self.counts();
        (0..down * across).map(move |square| {
            let start = square / across * size * width + square % across * size;
            let places = (0..size * size).map(move |place| start + place / size * width + place % size);
            places.fold(start, |best, place| if image[place] > image[best] { place } else { best })
        })
    }
}

/// The largest element of each square of every image.
pub(crate) fn max_pool(x: &[f32], squares: Squares) -> Vec<f32> {
    let images = x.par_chunks_exact((squares.height * squares.width).max(1));
    images.flat_map_iter(|image| squares.largest(image).map(|place| image[place])).collect()
}

/// The gradient of [`max_pool`]: each square's goes to its largest element.
pub(crate) fn max_pool_backward(x: &[f32], gradient: &[f32], squares: Squares) -> Vec<f32> {
    let (down, across) = squares.counts();
    let image = (squares.height * squares.width).max(1);
    let mut out = vec![0.0; x.len()];
    let gradients = gradient.par_chunks_exact((down * across).max(1));
    let images = out.par_chunks_exact_mut(image).zip(x.par_chunks_exact(image)).zip(gradients);
    images.for_each(|((out, x), gradient)| {
        for (place, gradient) in squares.largest(x).zip(gradient) {
            out[place] = *gradient;
        }
    });
    out
}
