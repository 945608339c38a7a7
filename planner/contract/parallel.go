package contract

import "sync"

// parallel calls do for 0 to n-1, all at once. A panic in a call becomes a panic of the caller, who may recover.
func parallel(n int, do func(i int)) {
	var all sync.WaitGroup
	causes := make([]any, n)
	for i := range n {
		all.Go(func() {
			defer func() { causes[i] = recover() }()
			do(i)
		})
	}
	all.Wait()
	for _, cause := range causes {
		if cause != nil {
			panic(cause)
		}
	}
}
