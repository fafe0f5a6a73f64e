package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// writes is how many keys another client writes in a second while hand-overs are measured.
const writes = 500

// besideWrites measures something while another client writes, and adds how many writes a second
// etcd has answered.
func besideWrites(ctx context.Context, e etcd, measured func(context.Context) (figures, error)) (figures, error) {
	client, err := e.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	writing, stop := context.WithCancel(ctx)
	var (
		answered atomic.Int64
		writers  sync.WaitGroup
		failed   error
	)
	start := time.Now()
	writers.Go(func() {
		failed = write(writing, func(ctx context.Context, i int) error {
			_, err := client.Put(ctx, fmt.Sprintf("/other/%d", i%1000), "written by another client")
			if err == nil {
				answered.Add(1)
			}
			return err
		})
	})
	f, err := measured(ctx)
	rate := float64(answered.Load()) / time.Since(start).Seconds()
	stop()
	writers.Wait()
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	f["writes"] = []float64{rate}
	return f, nil
}

// write calls put at even times, whether the ones before are answered or not, until ctx is done.
func write(ctx context.Context, put func(context.Context, int) error) (failed error) {
	const atOnce = 200 // beyond these etcd does not keep up, and the rate shows it
	var (
		once  sync.Once
		puts  sync.WaitGroup
		slots = make(chan struct{}, atOnce)
	)
	start := time.Now()
	for i := 0; ; i++ {
		next := time.After(time.Until(start.Add(time.Duration(i) * time.Second / writes)))
		select {
		case <-next:
		case <-ctx.Done():
			puts.Wait()
			return failed
		}
		slots <- struct{}{}
		puts.Go(func() {
			defer func() { <-slots }()
			if err := put(ctx, i); err != nil && ctx.Err() == nil {
				once.Do(func() { failed = err })
			}
		})
	}
}
