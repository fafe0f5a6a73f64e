package main

import (
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A picture shows curves of both sides over the number of waiters.
type picture struct {
	file, title, unit string
	figures           []string // the first one is drawn solid, the second one dashed
}

var pictures = []picture{
	{"enqueue.svg", "Time to get a place in line", "ms", []string{"enqueue"}},
	{"hand-over.svg", "Hand-over", "ms", []string{"p50", "p99"}},
	{"server-cpu.svg", "Server CPU per hand-over", "ms", []string{"cpu"}},
}

// draw writes all pictures into a directory.
func drawAll(dir string, r result, sizes []int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range pictures {
		if err := p.draw(filepath.Join(dir, p.file), r, sizes); err != nil {
			return err
		}
	}
	return nil
}

func (p picture) draw(file string, r result, sizes []int) error {
	out := plot.New()
	out.Title.Text, out.X.Label.Text, out.Y.Label.Text = p.title, "waiters", p.unit
	out.X.Scale, out.Y.Scale = plot.LogScale{}, plot.LogScale{}
	out.X.Tick.Marker, out.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	out.Legend.Top, out.Legend.Left = true, true
	out.Add(plotter.NewGrid())
	for _, s := range []struct {
		lib   library
		color color.Color
	}{{ours, color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff}}, {mutex, color.RGBA{R: 0xd6, G: 0x27, B: 0x28, A: 0xff}}} {
		for i, figure := range p.figures {
			line, points, err := plotter.NewLinePoints(series(r, s.lib, figure, sizes))
			if err != nil {
				return err
			}
			line.Color, points.Color, points.Shape = s.color, s.color, draw.CircleGlyph{}
			line.Width = vg.Points(1.5)
			name := s.lib.name
			if len(p.figures) > 1 {
				name += " " + figure
			}
			if i > 0 {
				line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
			}
			out.Add(line, points)
			out.Legend.Add(name, line, points)
		}
	}
	return out.Save(6*vg.Inch, 4*vg.Inch, file)
}

// series are the points of a curve. What is too small to be measured cannot be 0 on a logarithmic
// scale.
func series(r result, lib library, figure string, sizes []int) (points plotter.XYs) {
	const smallest = 0.01
	for _, n := range sizes {
		points = append(points, plotter.XY{X: float64(n), Y: max(r.value(waiters(lib, n), figure), smallest)})
	}
	return points
}
