// Dereferences nil, and recovers.
package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

var sink int

//go:noinline
func load(p *int) int {
	return *p
}

//go:noinline
func divide(a, b int) int {
	return a / b
}

// try calls f and says what it has panicked with, and from where.
func try(f func()) {
	defer func() {
		if reason := recover(); reason != nil {
			var pcs [8]uintptr
			frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
			for {
				frame, more := frames.Next()
				fmt.Print(frame.Function, ":", frame.Line, " ")
				if !more {
					break
				}
			}
			fmt.Println(reason)
			if addressed, ok := reason.(interface{ Addr() uintptr }); ok {
				fmt.Println("address", addressed.Addr())
			}
		}
	}()
	f()
}

func main() {
	debug.SetPanicOnFault(true)
	loads, divides := 0, 0
	for i := 0; i < 100; i++ {
		try(func() {
			loads++
			sink += load(nil)
		})
		try(func() {
			loads++
			sink += load(&i)
		})
	}
	try(func() {
		divides++
		sink += divide(i64(1), i64(0))
	})
	fmt.Println(sink)
	fmt.Printf("calls main.load=%d\ncalls main.divide=%d\n", loads, divides)
}

//go:noinline
func i64(n int) int { return n }
