package boottime

import (
	"testing"
	"time"
)

func TestTimer(t *testing.T) {
	alarms := map[string]func(chan<- struct{}) alarm{
		"system": newAlarm,
		"poller": func(c chan<- struct{}) alarm { return newPoller(c, pollEvery) },
	}
	for name, make_ := range alarms {
		t.Run(name, func(t *testing.T) {
			c := make(chan struct{}, 1)
			timer := &Timer{C: c, alarm: make_(c)}
			defer timer.Close()

			timer.Reset(Now().Add(time.Hour))
			at := Now().Add(20 * time.Millisecond)
			timer.Reset(at)
			<-timer.C
			if early := at.Until(); early > 0 {
				t.Errorf("rang %v early", early)
			}
			timer.Reset(Now().Add(-time.Second))
			<-timer.C
			timer.Reset(1)
			<-timer.C
		})
	}
}

func TestResetForgetsAnUnreceivedAlarm(t *testing.T) {
	timer := NewTimer()
	defer timer.Close()
	timer.Reset(Now())
	for len(timer.C) == 0 {
		time.Sleep(time.Millisecond)
	}
	timer.Reset(Now().Add(time.Hour))
	select {
	case <-timer.C:
		t.Error("rang for the instant that was replaced")
	default:
	}
}

// TestManyTimers: each rings in its time, whatever becomes of the others.
func TestManyTimers(t *testing.T) {
	for range 3 { // what they share comes and goes
		const n = 50
		var timers [n]*Timer
		begin := Now()
		at := func(i int) Instant { return begin.Add(time.Duration(i*7%n) * time.Millisecond) }
		for i := range timers {
			timers[i] = NewTimer()
			timers[i].Reset(at(n - i))
			timers[i].Reset(at(i))
		}
		for i, timer := range timers {
			if i%3 == 0 {
				timer.Close()
				continue
			}
			<-timer.C
			if early := at(i).Until(); early > 0 {
				t.Errorf("rang %v early", early)
			}
			timer.Reset(Now())
		}
		for i, timer := range timers {
			if i%3 > 0 {
				<-timer.C
				timer.Close()
			}
		}
	}
}
