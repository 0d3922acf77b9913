// Draw the charts of the page by uPlot, in the colors of its style sheet, as wide as their figures.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const holders = [...document.querySelectorAll(".chart")];
  const color = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const text = value => value == null ? "-" : String(+value.toPrecision(4));
  const axis = more => ({ stroke: () => color("text"), grid: { stroke: () => color("line"), width: 1 },
    ticks: { stroke: () => color("line"), width: 1 }, ...more });
  const wholes = [1, 2, 5].flatMap(digit => [...Array(9).keys()].map(power => digit * 10 ** power)).sort((a, b) => a - b);
  let drawn = [];

  function draw(chart, holder) {
    const lines = chart.lines.map(line => ({
      // In a comparison, validation follows the training of its run.
      label: line.color != null && line.dashed ? line.name.split(", ").at(-1) : line.name, stroke: color(line.color == null ? "muted" : `c${line.color % 6}`), width: 1.5,
      dash: line.dashed ? [6, 4] : [], spanGaps: true, value: (_, value) => text(value),
      points: line.color == null ? { show: false } : {},
    }));
    const within = (_, least, most) => [0, most > 0 ? most * 1.08 : 1];
    // A single value has no place of its own on a logarithmic axis.
    const log = chart.log && new Set(chart.lines.flatMap(line => line.y).filter(value => value != null)).size > 1;
    return new uPlot({
      width: width(holder), height: 260,
      cursor: { sync: { key: "epoch", setSeries: false }, drag: { x: true, y: false } },
      scales: { x: { time: false }, y: log ? { distr: 3 } : chart.from_zero ? { range: within } : {} },
      axes: [axis({ label: "epoch", labelSize: 22, size: 34, incrs: wholes }),
        axis({ size: 66, values: (_, values) => values.map(value => value == null ? null : text(value)) })],
      legend: { markers: { dash: (_, index) => chart.lines[index - 1].dashed ? "dashed" : "solid" } },
      series: [{ label: "epoch", value: (_, value) => text(value) }, ...lines],
    }, [chart.x, ...chart.lines.map(line => line.y)], holder);
  }

  const width = holder => Math.max(200, holder.clientWidth - 16);
  function drawAll() {
    drawn.forEach(plot => plot.destroy());
    drawn = charts.map((chart, index) => draw(chart, holders[index]));
  }
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => drawn.forEach((plot, index) =>
    plot.setSize({ width: width(holders[index]), height: 260 })));
})();
