//! Something for each partition, found by the partition.

use std::ops::{Index, IndexMut};

use super::Partition;

/// One `T` for each of the 4096 partitions.
#[derive(Clone, Debug)]
pub struct EachPartition<T>(Box<[T]>);

impl<T: Default> Default for EachPartition<T> {
    fn default() -> Self {
        Self(Partition::all().map(|_| T::default()).collect())
    }
}

impl<T> EachPartition<T> {
    /// All of them, in the partitions' order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<Partition> for EachPartition<T> {
    type Output = T;
    fn index(&self, partition: Partition) -> &T {
        &self.0[usize::from(partition.number())]
    }
}

impl<T> IndexMut<Partition> for EachPartition<T> {
    fn index_mut(&mut self, partition: Partition) -> &mut T {
        &mut self.0[usize::from(partition.number())]
    }
}
