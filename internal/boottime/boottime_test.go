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
