package queue

// Arrival is closed when a batch arrives, is taken or goes back.
func (q *Queue[T]) Arrival() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.arrived
}
