//! A tensor as a collective sees it: memory that torch owns.

#![allow(unsafe_code)]

use muster_collectives::{DataType, Element};

use crate::element_type::{ElementType, size_of_element};

/// Where the elements of a contiguous tensor lie.
#[derive(Debug, PartialEq, Eq)]
pub struct Tensor {
    address: usize,
    /// In units of `data_type`.
    count: usize,
    data_type: DataType,
    /// Units of `data_type` in one of torch's elements.
    width: usize,
}

/// Why memory cannot be a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTensor {
    /// The address does not suit the elements.
    #[error("a tensor of {bytes}-byte elements at address {address:#x} is not aligned: clone it")]
    Address {
        /// Where it begins.
        address: usize,
        /// Bytes of an element.
        bytes: usize,
    },
    /// There is not so much memory.
    #[error("a tensor of {count} elements of {bytes} bytes exceeds the address space")]
    Length {
        /// Its elements.
        count: usize,
        /// Bytes of an element.
        bytes: usize,
    },
}

impl Tensor {
    /// `count` elements that lie one after the other from `address` on.
    ///
    /// # Safety
    /// Until the last use of the value, the memory must stay allocated and initialised, and nobody else may write to it
    /// or, where a request writes to it, read it. This is what torch asks of a program that passes a tensor to a
    /// collective; the memory stays allocated as long as somebody holds the tensor.
    pub unsafe fn new(address: usize, count: usize, element: ElementType) -> Result<Self, InvalidTensor> {
        let (data_type, width) = element.carried_as();
        let too_long = InvalidTensor::Length { count, bytes: element.bytes() };
        let bytes = count.checked_mul(element.bytes()).ok_or(too_long)?;
        if bytes > isize::MAX as usize || address.checked_add(bytes).is_none() {
            return Err(too_long);
        }
        let alignment = size_of_element(data_type);
        if bytes > 0 && (address == 0 || !address.is_multiple_of(alignment)) {
            return Err(InvalidTensor::Address { address, bytes: alignment });
        }
        Ok(Self { address, count: count * width, data_type, width })
    }

    /// The type in which the elements travel.
    pub(crate) fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Counts of torch's elements in units of [`Self::data_type`].
    pub(crate) fn scaled(&self, counts: &[usize]) -> Vec<usize> {
        counts.iter().map(|count| count.saturating_mul(self.width)).collect()
    }

    /// Whether the two share memory.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let end = |tensor: &Self| tensor.address + tensor.count * size_of_element(tensor.data_type);
        self.address < end(other) && other.address < end(self)
    }

    /// The elements. `T` must be the type that [`Self::data_type`] names.
    pub(crate) fn elements<T: Element>(&self) -> &[T] {
        assert_eq!(T::DATA_TYPE, self.data_type);
        if self.count == 0 {
            return &[];
        }
        let start = std::ptr::with_exposed_provenance::<T>(self.address);
        // SAFETY: `new` was promised that the memory is there and that nobody writes to it, and has checked alignment and
        // length; every bit pattern is a value of an `Element`.
        unsafe { std::slice::from_raw_parts(start, self.count) }
    }

    /// The elements, to be written. `T` must be the type that [`Self::data_type`] names.
    pub(crate) fn elements_mut<T: Element>(&mut self) -> &mut [T] {
        assert_eq!(T::DATA_TYPE, self.data_type);
        if self.count == 0 {
            return &mut [];
        }
        let start = std::ptr::with_exposed_provenance_mut::<T>(self.address);
        // SAFETY: as above; that no other tensor of the same request shares the memory is seen to where requests are
        // carried out.
        unsafe { std::slice::from_raw_parts_mut(start, self.count) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(address: usize, count: usize, element: ElementType) -> Result<Tensor, InvalidTensor> {
        // SAFETY: these tests look at no element of it.
        unsafe { Tensor::new(address, count, element) }
    }

    const FLOAT: ElementType = ElementType::Number(DataType::F32);

    #[test]
    fn memory_that_cannot_be_a_tensor_is_refused() {
        assert_eq!(at(6, 1, FLOAT), Err(InvalidTensor::Address { address: 6, bytes: 4 }));
        assert_eq!(at(0, 1, FLOAT), Err(InvalidTensor::Address { address: 0, bytes: 4 }));
        assert!(at(0, 0, FLOAT).unwrap().elements::<f32>().is_empty());
        assert_eq!(
            at(8, usize::MAX / 2, FLOAT),
            Err(InvalidTensor::Length { count: usize::MAX / 2, bytes: 4 })
        );
        assert!(at(usize::MAX - 3, 1, FLOAT).is_err());
        assert!(at(7, 1, ElementType::Opaque(16)).is_ok(), "bytes lie anywhere");
    }

    #[test]
    fn wide_elements_are_counted_in_bytes() {
        let tensor = at(64, 3, ElementType::Opaque(16)).unwrap();
        assert_eq!(tensor.data_type(), DataType::U8);
        assert_eq!(tensor.scaled(&[1, 0, 2]), [16, 0, 32]);
    }

    proptest! {
        #[test]
        fn tensors_overlap_when_they_have_a_byte_in_common(a in 1_usize..40, b in 1_usize..40, m in 0_usize..9, n in 0_usize..9) {
            let bytes = |start: usize, count: usize| (start * 4..start * 4 + count * 4).collect::<Vec<_>>();
            let common = bytes(a, m).iter().any(|byte| bytes(b, n).contains(byte));
            let (one, other) = (at(a * 4, m, FLOAT).unwrap(), at(b * 4, n, FLOAT).unwrap());
            // An empty tensor has no byte, though it may point into another.
            prop_assert_eq!(one.overlaps(&other) && m > 0 && n > 0, common);
            prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
        }
    }
}
