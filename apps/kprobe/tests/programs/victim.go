// victim SCENARIO [CALLS] [wait]: a Go program with many goroutines, growing stacks, garbage and panics.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

var workCalls, outerCalls int64

//go:noinline
func work(x int) int {
	atomic.AddInt64(&workCalls, 1)
	return x*3 + 1
}

// Each level takes 512 bytes of stack: it grows, and moves, while `work` is called.
//
//go:noinline
func deep(n int) int {
	var room [64]int
	if n == 0 {
		return 0
	}
	room[n%64] = n
	return deep(n-1) + room[n%64] + work(n)
}

//go:noinline
func outer(n int) (result int) {
	atomic.AddInt64(&outerCalls, 1)
	defer func() {
		if recover() != nil {
			result = -1
		}
	}()
	return inner(n) + 1
}

//go:noinline
func inner(n int) int {
	if n%2 == 0 {
		panic("even")
	}
	return work(n)
}

func loop(calls int) {
	sum := 0
	for i := 0; i < calls; i++ {
		sum += work(i)
	}
	fmt.Println("sum", sum)
}

func goroutines(body func(int) int, count int) {
	var group sync.WaitGroup
	var total int64
	for k := 0; k < count; k++ {
		group.Add(1)
		go func(k int) {
			defer group.Done()
			result := body(k)
			garbage := make([]byte, 1<<16)
			if k%16 == 0 {
				runtime.GC()
			}
			runtime.Gosched()
			atomic.AddInt64(&total, int64(result+len(garbage)))
		}(k)
	}
	group.Wait()
	fmt.Println("total", total)
}

func ownTrap() {
	traps := make(chan os.Signal, 1)
	signal.Notify(traps, syscall.SIGTRAP)
	for i := 0; i < 3; i++ {
		syscall.Kill(os.Getpid(), syscall.SIGTRAP)
		fmt.Println("got", <-traps)
		loop(100)
	}
}

func main() {
	scenario, calls := os.Args[1], 1000
	if len(os.Args) > 2 {
		calls, _ = strconv.Atoi(os.Args[2])
	}
	if len(os.Args) > 3 {
		fmt.Println("ready")
		bufio.NewReader(os.Stdin).ReadString('\n')
	}
	switch scenario {
	case "loop":
		loop(calls)
	case "growth":
		goroutines(func(int) int { return deep(50) }, 200)
	case "panics":
		goroutines(func(int) int {
			sum := 0
			for i := 0; i < 100; i++ {
				sum += outer(i) + deep(i%20)
			}
			return sum
		}, 16)
	case "trap":
		ownTrap()
	}
	fmt.Printf("calls main.work=%d\n", workCalls)
	fmt.Printf("calls main.outer=%d\n", outerCalls)
}
